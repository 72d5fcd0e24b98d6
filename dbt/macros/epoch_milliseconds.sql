{#
    A moment as a number, for keys: as text, each warehouse writes it in another way.
#}
{% macro epoch_milliseconds(column_name) -%}
    {%- set beginning = dbt.cast("'1970-01-01'", dbt.type_timestamp()) -%}
    {{ dbt.datediff(beginning, column_name, 'millisecond') }}
{%- endmacro %}
