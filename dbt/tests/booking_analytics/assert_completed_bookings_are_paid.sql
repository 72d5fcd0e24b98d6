{{ config(severity='warn') }}

with

bookings as (

    select * from {{ ref('fct_bookings') }}

),

payments as (

    select * from {{ ref('fct_payments') }}

),

paid as (

    select booking_id

    from payments

    group by booking_id

    having sum(net_amount) > 0

)

select

    bookings.booking_id,
    bookings.customer_id,
    bookings.booking_amount_eur,
    bookings.check_out_date

from bookings

left join paid
    on bookings.booking_id = paid.booking_id

where
    bookings.booking_status = 'completed'
    and paid.booking_id is null
