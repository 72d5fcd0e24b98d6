with

dashboard_days as (

    select * from {{ ref('fct_dashboard_days') }}

),

partner_days as (

    select * from {{ ref('fct_partner_days') }}

),

joined as (

    select

        dashboard_days.partner_day_id,
        dashboard_days.partner_id,
        dashboard_days.report_date,
        dashboard_days.click_count as shown_click_count,
        dashboard_days.conversion_count as shown_conversion_count,
        dashboard_days.commission_amount as shown_commission_amount,
        coalesce(partner_days.click_count, 0) as click_count,
        coalesce(partner_days.conversion_count, 0) as conversion_count,
        coalesce(partner_days.commission_amount, 0) as commission_amount

    from dashboard_days

    left join partner_days
        on
            dashboard_days.partner_id = partner_days.partner_id
            and dashboard_days.report_date = partner_days.activity_date

)

select

    ---------- ids
    partner_day_id,
    partner_id,

    ---------- numerics
    shown_click_count,
    shown_conversion_count,
    shown_commission_amount,
    shown_click_count - click_count as click_difference,
    shown_conversion_count - conversion_count as conversion_difference,
    shown_commission_amount - commission_amount as commission_difference,

    ---------- booleans
    shown_conversion_count < conversion_count as is_conversion_missing,

    ---------- dates
    report_date

from joined
