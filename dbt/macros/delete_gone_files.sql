{#
    A pre-hook for models that are built by file. What is inserted afterwards meets no row of an
    older load: a file that came again with fewer rows, or with none, leaves none of its old ones.
#}
{% macro delete_gone_files(relation) %}

    {% if is_incremental() %}

        delete from {{ this }}
        where
            _source_id in (
                select gone._source_id
                from (
                    select _source_id, _loaded_at from {{ this }}
                    {{ dbt.except() }}
                    select _source_id, _loaded_at from {{ relation }}
                ) as gone
            )

    {% endif %}

{% endmacro %}
