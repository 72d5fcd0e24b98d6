{% macro campaign_key(column_name) -%}
    nullif(replace(replace(lower(trim({{ column_name }})), '-', '_'), ' ', '_'), '')
{%- endmacro %}
