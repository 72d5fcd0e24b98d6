with

conversions as (

    select * from {{ ref('int_conversions__matched_to_deals') }}

),

clicks as (

    select * from {{ ref('stg_affiliates__clicks') }}

),

joined as (

    select

        conversions.*,
        clicks.campaign_id,
        clicks.device_kind

    from conversions

    left join clicks
        on conversions.click_id = clicks.click_id

)

select

    ---------- ids
    conversion_id,
    click_id,
    partner_id,
    deal_id,
    campaign_id,

    ---------- text
    conversion_status,
    commission_model,
    device_kind,

    ---------- numerics
    order_amount,
    commission_amount,

    ---------- dates
    converted_date,

    ---------- timestamps
    converted_at

from joined
