with

source as (

    select * from {{ source('bookings_app', 'bookings') }}

),

renamed as (

    select

        ---------- ids
        id as booking_id,
        customer_id,
        property_id,

        ---------- text
        lower(trim(status)) as booking_status,
        upper(trim(currency)) as currency_code,

        ---------- numerics
        guests as guest_count,
        {{ dbt.datediff('check_in', 'check_out', 'day') }} as night_count,
        {{ minor_units_to_amount('amount_minor') }} as booking_amount,

        ---------- dates
        cast(booked_at as date) as booked_date,
        check_in as check_in_date,
        check_out as check_out_date,

        ---------- timestamps
        booked_at,
        updated_at

    from source

)

select * from renamed
