{#- the partitions of BigQuery; in PostgreSQL, there are none -#}
{% set months = {'field': 'spend_date', 'data_type': 'date', 'granularity': 'month'} %}

{{
    config(
        materialized='incremental',
        incremental_strategy='merge' if target.type == 'bigquery' else 'delete+insert',
        unique_key='ad_spend_id',
        on_schema_change='append_new_columns',
        partition_by=months if target.type == 'bigquery' else none,
        cluster_by=['campaign_id'] if target.type == 'bigquery' else none,
        pre_hook="{{ delete_gone_rows(ref('stg_sales_marketing__ad_spend'), 'ad_spend_id') }}",
    )
}}

with

ad_spend as (

    select * from {{ ref('stg_sales_marketing__ad_spend') }}

    {% if is_incremental() %}

        -- by the time of the sync: a platform may report a day again long after it
        where extracted_at >= {{ load_watermark(this, 'extracted_at') }}

    {% endif %}

)

select

    ---------- ids
    ad_spend_id,
    campaign_id,

    ---------- numerics
    impression_count,
    click_count,
    spend_amount,
    cast(round(spend_amount / nullif(click_count, 0), 2) as numeric(28, 2))
        as cost_per_click_amount,

    ---------- dates
    spend_date,

    ---------- timestamps
    reported_at,
    extracted_at

from ad_spend
