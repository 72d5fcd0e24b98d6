{% macro minor_units_to_amount(column_name) -%}
    round(cast({{ column_name }} as {{ dbt.type_numeric() }}) / 100, 2)
{%- endmacro %}
