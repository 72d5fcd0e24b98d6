{{ config(materialized='view') }}

with

partners as (

    select * from {{ ref('dim_partners') }}

),

conversions as (

    select * from {{ ref('fct_conversions') }}

),

payouts as (

    select * from {{ ref('stg_affiliates__payouts') }}

),

commission_by_partner as (

    select

        partner_id,
        sum(case when conversion_status = 'approved' then commission_amount end) as earned_amount,
        sum(case when conversion_status = 'pending' then commission_amount end) as pending_amount

    from conversions

    group by partner_id

),

payouts_by_partner as (

    select

        partner_id,
        sum(paid_amount) as paid_amount,
        max(paid_date) as last_paid_date

    from payouts

    group by partner_id

),

-- no payment at all is nothing unusual: payouts are optional
joined as (

    select

        partners.partner_id,
        coalesce(commission_by_partner.earned_amount, 0) as earned_amount,
        coalesce(commission_by_partner.pending_amount, 0) as pending_amount,
        coalesce(payouts_by_partner.paid_amount, 0) as paid_amount,
        payouts_by_partner.last_paid_date

    from partners

    left join commission_by_partner
        on partners.partner_id = commission_by_partner.partner_id

    left join payouts_by_partner
        on partners.partner_id = payouts_by_partner.partner_id

)

select

    ---------- ids
    partner_id,

    ---------- numerics
    earned_amount,
    pending_amount,
    paid_amount,
    earned_amount - paid_amount as open_amount,

    ---------- dates
    last_paid_date

from joined
