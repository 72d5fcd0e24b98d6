{#
    A pre-hook for models that are built by file. `delete+insert` deletes what it is about to insert
    again, so that a file that came again with no rows at all would keep its old ones.
#}
{% macro delete_gone_files(relation) %}

    {% if is_incremental() %}

        delete from {{ this }}
        where _source_id not in (select _source_id from {{ relation }})

    {% endif %}

{% endmacro %}
