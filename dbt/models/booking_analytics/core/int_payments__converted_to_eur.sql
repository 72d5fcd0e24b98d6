with

payments as (

    select * from {{ ref('stg_bookings_app__payments') }}

),

rates as (

    select * from {{ ref('int_reference_rates__spanned') }}

),

signed as (

    select

        *,
        case
            when payment_status = 'failed' then 0
            when payment_kind = 'refund' then -payment_amount
            else payment_amount
        end as net_amount

    from payments

),

joined as (

    select

        signed.*,
        rates.units_per_eur

    from signed

    left join rates
        on
            signed.currency_code = rates.currency_code
            and signed.paid_date >= rates.valid_from_date
            and (
                signed.paid_date < rates.valid_until_date
                or rates.valid_until_date is null
            )

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
    round(net_amount / units_per_eur, 2) as net_amount_eur,

    ---------- dates
    paid_date,

    ---------- timestamps
    paid_at

from joined
