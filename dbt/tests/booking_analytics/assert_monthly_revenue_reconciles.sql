with

bookings as (

    select * from {{ ref('fct_bookings') }}

),

monthly_revenue as (

    select * from {{ ref('fct_monthly_revenue') }}

),

totals as (

    select

        (
            select sum(booking_amount_eur)
            from bookings
            where not is_cancelled
        ) as bookings_eur,
        (
            select sum(revenue_eur)
            from monthly_revenue
        ) as monthly_revenue_eur

)

select

    bookings_eur,
    monthly_revenue_eur

from totals

where bookings_eur <> monthly_revenue_eur
