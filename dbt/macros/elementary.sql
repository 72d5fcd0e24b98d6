{#-
    What ties Elementary to this project; without its package all of it is dead, and harms nothing.
    ORRERY_ELEMENTARY_RESULTS says whether a command hands its results to Elementary.
-#}

{% macro default__get_package_database_and_schema(package_name="elementary") %}
    {% if execute and env_var('ORRERY_ELEMENTARY_RESULTS', '1') == '0' %}
        {% do return([none, none]) %}
    {% endif %}
    {% do return(elementary.default__get_package_database_and_schema(package_name)) %}
{% endmacro %}

{% materialization test, default %}
    {% if elementary is defined %}
        {% do return(elementary.materialization_test_default()) %}
    {% endif %}
    {% do return(dbt.materialization_test_default()) %}
{% endmaterialization %}

{% macro upload_elementary_artifacts() %}
    {# One at a time: two that upload the same change would both add its rows. #}
    {% if target.type == 'postgres' %}
        {% do run_query("select pg_advisory_lock(hashtext('elementary artifacts'))") %}
    {% endif %}
    {% set uploads = {
        'dbt_models': elementary.upload_dbt_models,
        'dbt_tests': elementary.upload_dbt_tests,
        'dbt_sources': elementary.upload_dbt_sources,
        'dbt_snapshots': elementary.upload_dbt_snapshots,
        'dbt_seeds': elementary.upload_dbt_seeds,
        'dbt_exposures': elementary.upload_dbt_exposures,
        'dbt_groups': elementary.upload_dbt_groups,
        'dbt_columns': elementary.upload_dbt_columns,
    } %}
    {% for table, upload in uploads.items() if elementary.get_elementary_relation(table) %}
        {% do upload(should_commit=true) %}
    {% endfor %}
{% endmacro %}
