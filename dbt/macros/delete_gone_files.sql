{#
    A pre-hook for models that are built by file. `delete+insert` deletes what it is about to insert
    again, so that a file that came again with no rows at all would keep its old ones.
#}
{% macro delete_gone_files(relation) %}

    {{ delete_gone_rows(relation, '_source_id') }}

{% endmacro %}
