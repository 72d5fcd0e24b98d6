with

source as (

    select * from {{ source('bookings_app', 'payments') }}

),

renamed as (

    select

        ---------- ids
        id as payment_id,
        booking_id,

        ---------- text
        lower(trim(kind)) as payment_kind,
        lower(trim(method)) as payment_method,
        lower(trim(status)) as payment_status,
        upper(trim(currency)) as currency_code,

        ---------- numerics
        {{ minor_units_to_amount('amount_minor') }} as payment_amount,

        ---------- dates
        cast(created_at as date) as paid_date,

        ---------- timestamps
        created_at as paid_at

    from source

)

select * from renamed
