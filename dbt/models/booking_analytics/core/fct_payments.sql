with

payments as (

    select * from {{ ref('int_payments__converted_to_eur') }}

)

select

    ---------- ids
    payment_id,
    booking_id,

    ---------- text
    payment_kind,
    payment_method,
    payment_status,
    currency_code,

    ---------- numerics
    payment_amount,
    net_amount,
    net_amount_eur,

    ---------- dates
    paid_date,

    ---------- timestamps
    paid_at

from payments
