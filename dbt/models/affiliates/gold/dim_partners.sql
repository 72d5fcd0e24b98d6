with

partners as (

    select * from {{ ref('stg_affiliates__partners') }}

),

latest_deals as (

    select * from {{ ref('dim_deals') }}

    where is_latest

),

joined as (

    select

        partners.*,
        latest_deals.deal_id,
        latest_deals.commission_model,
        latest_deals.share_percent,
        latest_deals.fixed_amount,
        latest_deals.valid_from_date

    from partners

    left join latest_deals
        on partners.partner_id = latest_deals.partner_id

)

select

    ---------- ids
    partner_id,
    deal_id as latest_deal_id,

    ---------- text
    partner_name,
    country_code,
    network_name,
    partner_category,
    commission_model,

    ---------- numerics
    share_percent,
    fixed_amount,

    ---------- dates
    valid_from_date as latest_deal_from_date

from joined
