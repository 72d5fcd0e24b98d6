{#
    The files of a relation that a model, built by file, does not hold as they are now: those that
    arrived, and those that came again. For an incremental run only, after the model exists.
#}
{% macro changed_files(relation, columns=['_loaded_at']) -%}
    {%- set compared = ['_source_id'] + columns -%}
    select changed._source_id
    from (
        select {{ compared | join(', ') }} from {{ relation }}
        {{ dbt.except() }}
        select {{ compared | join(', ') }} from {{ this }}
    ) as changed
{%- endmacro %}
