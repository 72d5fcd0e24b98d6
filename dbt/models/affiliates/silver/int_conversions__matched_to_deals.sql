{{
    config(
        unique_key='conversion_id',
        pre_hook="{{ delete_gone_files(ref('stg_affiliates__conversions')) }}",
    )
}}

{% set compared = ['_loaded_at', 'conversion_id', 'deal_id', 'deal_loaded_at'] %}

with

conversions as (

    select * from {{ ref('stg_affiliates__conversions') }}

),

deals as (

    select * from {{ ref('int_deals__spanned') }}

),

matched as (

    select

        conversions.*,
        deals.deal_id,
        deals.commission_model,
        deals.share_percent,
        deals.fixed_amount,
        deals._loaded_at as deal_loaded_at

    from conversions

    left join deals
        on
            conversions.partner_id = deals.partner_id
            and conversions.converted_date >= deals.valid_from_date
            and (
                conversions.converted_date < deals.valid_until_date
                or deals.valid_until_date is null
            )

)

select

    ---------- ids
    conversion_id,
    click_id,
    partner_id,
    deal_id,
    _source_id,

    ---------- text
    conversion_status,
    commission_model,

    ---------- numerics
    order_amount,
    case
        when conversion_status = 'rejected' or deal_id is null then 0
        when commission_model = 'fixed' then fixed_amount
        else round(order_amount * share_percent / 100, 2)
    end as commission_amount,

    ---------- dates
    converted_date,

    ---------- timestamps
    converted_at,
    deal_loaded_at,
    _loaded_at

from matched

{% if is_incremental() %}

    -- by what the rows are made from: a deal that came again changes conversions of older files
    where _source_id in ({{ changed_files('matched', compared) }})

{% endif %}
