{#
    The values of a column lie between two bounds, both of them accepted. Either may be left out.
    Nulls pass: not_null is a test of its own.
#}
{% test accepted_range(model, column_name, min_value=none, max_value=none) %}

    {% if min_value is none and max_value is none %}
        {{ exceptions.raise_compiler_error("accepted_range needs a min_value or a max_value") }}
    {% endif %}

    {% set out_of_range = [] %}

    {% if min_value is not none %}
        {% do out_of_range.append(column_name ~ ' < ' ~ min_value) %}
    {% endif %}

    {% if max_value is not none %}
        {% do out_of_range.append(column_name ~ ' > ' ~ max_value) %}
    {% endif %}

    select {{ column_name }}

    from {{ model }}

    where {{ out_of_range | join(' or ') }}

{% endtest %}
