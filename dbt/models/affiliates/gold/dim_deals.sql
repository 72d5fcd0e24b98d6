{{ config(materialized='view') }}

with

deals as (

    select * from {{ ref('int_deals__spanned') }}

)

select

    ---------- ids
    deal_id,
    partner_id,

    ---------- text
    commission_model,

    ---------- numerics
    share_percent,
    fixed_amount,

    ---------- booleans
    valid_until_date is null as is_latest,

    ---------- dates
    valid_from_date,
    valid_until_date

from deals
