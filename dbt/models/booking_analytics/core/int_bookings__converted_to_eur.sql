with

bookings as (

    select * from {{ ref('stg_bookings_app__bookings') }}

),

rates as (

    select * from {{ ref('int_reference_rates__spanned') }}

),

joined as (

    select

        bookings.*,
        rates.units_per_eur,
        rates.rate_date

    from bookings

    left join rates
        on
            bookings.currency_code = rates.currency_code
            and bookings.booked_date >= rates.valid_from_date
            and (
                bookings.booked_date < rates.valid_until_date
                or rates.valid_until_date is null
            )

)

select

    ---------- ids
    booking_id,
    customer_id,
    property_id,

    ---------- text
    booking_status,
    currency_code,

    ---------- numerics
    guest_count,
    night_count,
    booking_amount,
    units_per_eur,
    {{ dbt.datediff('rate_date', 'booked_date', 'day') }} as rate_age_days,
    round(booking_amount / units_per_eur, 2) as booking_amount_eur,

    ---------- dates
    booked_date,
    check_in_date,
    check_out_date,

    ---------- timestamps
    booked_at,
    updated_at

from joined
