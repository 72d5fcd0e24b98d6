{% macro micros_to_amount(column_name) -%}
    round(cast({{ column_name }} as {{ dbt.type_numeric() }}) / 1000000, 2)
{%- endmacro %}
