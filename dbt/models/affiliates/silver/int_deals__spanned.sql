{{ config(materialized='view') }}

with

deals as (

    select * from {{ ref('stg_affiliates__deals') }}

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

    ---------- dates
    valid_from_date,
    lead(valid_from_date) over (
        partition by partner_id
        order by valid_from_date
    ) as valid_until_date,

    ---------- timestamps
    _loaded_at

from deals
