{{ config(materialized='view') }}

with

campaign_days as (

    select * from {{ ref('stg_affiliates__voluum') }}

)

select

    ---------- ids
    campaign_day_id,
    campaign_id,

    ---------- text
    campaign_name,

    ---------- numerics
    visit_count,
    cost_amount,
    round(cost_amount / nullif(visit_count, 0), 4) as visit_cost_amount,

    ---------- dates
    report_date

from campaign_days
