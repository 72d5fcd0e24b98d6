with

booking_states as (

    select * from {{ ref('snap_bookings') }}

),

numbered as (

    select

        *,
        row_number() over (
            partition by booking_id
            order by dbt_valid_from
        ) as version_number

    from booking_states

)

select

    ---------- ids
    dbt_scd_id as booking_version_id,
    booking_id,

    ---------- text
    booking_status,
    currency_code,

    ---------- numerics
    cast(version_number as {{ dbt.type_int() }}) as version_number,
    guest_count,
    night_count,
    booking_amount,

    ---------- booleans
    dbt_valid_to is null as is_current,

    ---------- dates
    check_in_date,
    check_out_date,

    ---------- timestamps
    dbt_valid_from as valid_from_at,
    dbt_valid_to as valid_until_at

from numbered
