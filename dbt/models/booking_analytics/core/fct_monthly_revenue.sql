with

bookings as (

    select * from {{ ref('fct_bookings') }}

),

payments as (

    select * from {{ ref('fct_payments') }}

),

properties as (

    select * from {{ ref('dim_properties') }}

),

-- summed before the join: a booking with two payments must not count twice
payments_by_booking as (

    select

        booking_id,
        sum(net_amount_eur) as collected_amount_eur

    from payments

    group by booking_id

),

joined as (

    select

        bookings.*,
        cast({{ dbt.date_trunc('month', 'bookings.booked_date') }} as date) as revenue_month,
        properties.country_code,
        coalesce(payments_by_booking.collected_amount_eur, 0) as collected_amount_eur

    from bookings

    left join properties
        on bookings.property_id = properties.property_id

    left join payments_by_booking
        on bookings.booking_id = payments_by_booking.booking_id

),

aggregated as (

    select

        revenue_month,
        country_code,
        count(*) as booking_count,
        sum(case when is_cancelled then 1 else 0 end) as cancelled_booking_count,
        sum(case when is_cancelled then 0 else night_count end) as night_count,
        sum(booking_amount_eur) as booked_amount_eur,
        sum(case when is_cancelled then booking_amount_eur else 0 end) as cancelled_amount_eur,
        sum(collected_amount_eur) as collected_amount_eur

    from joined

    group by
        revenue_month,
        country_code

)

select

    ---------- ids
    {{ surrogate_key(['revenue_month', 'country_code']) }} as monthly_revenue_id,

    ---------- text
    country_code,

    ---------- numerics
    cast(booking_count as {{ dbt.type_int() }}) as booking_count,
    cast(cancelled_booking_count as {{ dbt.type_int() }}) as cancelled_booking_count,
    cast(night_count as {{ dbt.type_int() }}) as night_count,
    booked_amount_eur,
    cancelled_amount_eur,
    booked_amount_eur - cancelled_amount_eur as revenue_eur,
    collected_amount_eur,

    ---------- dates
    revenue_month

from aggregated
