{#
    The load time from which an incremental model reads on. A load may become visible after one that
    began later, so that the last hours are read again; what was there already is replaced.
#}
{% macro load_watermark(relation, column_name) -%}
    {%- set hours = '-' ~ var('late_load_hours') -%}
    {%- set read_from = dbt.dateadd('hour', hours, 'max(' ~ column_name ~ ')') -%}
    {%- if target.type == 'bigquery' -%}
        {#- there it is a datetime, while in PostgreSQL a cast would drop the time zone -#}
        {%- set read_from = dbt.cast(read_from, dbt.type_timestamp()) -%}
    {%- endif -%}
    (
        select
            coalesce(
                {{ read_from }},
                cast('1900-01-01' as {{ dbt.type_timestamp() }})
            )
        from {{ relation }}
    )
{%- endmacro %}
