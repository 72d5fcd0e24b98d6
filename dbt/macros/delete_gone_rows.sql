{#
    A pre-hook for incremental models. They insert and replace rows, and never see one that is not
    there any more in what they read.
#}
{% macro delete_gone_rows(relation, column_name) %}

    {% if is_incremental() %}

        delete from {{ this }}
        where {{ column_name }} not in (select {{ column_name }} from {{ relation }})

    {% endif %}

{% endmacro %}
