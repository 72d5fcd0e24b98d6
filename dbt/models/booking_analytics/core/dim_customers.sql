with

customers as (

    select * from {{ ref('stg_bookings_app__customers') }}

),

bookings as (

    select * from {{ ref('fct_bookings') }}

),

bookings_by_customer as (

    select

        customer_id,
        count(*) as booking_count,
        sum(case when is_cancelled then 0 else booking_amount_eur end) as lifetime_revenue_eur,
        min(booked_date) as first_booked_date,
        max(booked_date) as last_booked_date

    from bookings

    group by customer_id

),

joined as (

    select

        customers.*,
        coalesce(bookings_by_customer.booking_count, 0) as booking_count,
        coalesce(bookings_by_customer.lifetime_revenue_eur, 0) as lifetime_revenue_eur,
        bookings_by_customer.first_booked_date,
        bookings_by_customer.last_booked_date

    from customers

    left join bookings_by_customer
        on customers.customer_id = bookings_by_customer.customer_id

)

select

    ---------- ids
    customer_id,

    ---------- text
    customer_name,
    email,
    country_code,
    case
        when booking_count = 0 then 'prospect'
        when booking_count = 1 then 'new'
        else 'returning'
    end as customer_type,

    ---------- numerics
    cast(booking_count as {{ dbt.type_int() }}) as booking_count,
    lifetime_revenue_eur,

    ---------- booleans
    is_marketing_allowed,

    ---------- dates
    first_booked_date,
    last_booked_date,

    ---------- timestamps
    signed_up_at

from joined
