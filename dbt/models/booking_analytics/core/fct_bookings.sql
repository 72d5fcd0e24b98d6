{#- the partitions of BigQuery; in PostgreSQL, there are none -#}
{% set months = {'field': 'booked_date', 'data_type': 'date', 'granularity': 'month'} %}

{{
    config(
        materialized='incremental',
        incremental_strategy='merge' if target.type == 'bigquery' else 'delete+insert',
        unique_key='booking_id',
        on_schema_change='append_new_columns',
        partition_by=months if target.type == 'bigquery' else none,
        cluster_by=['property_id', 'customer_id'] if target.type == 'bigquery' else none,
    )
}}

{% set read_from = dbt.dateadd('day', '-' ~ var('late_arrival_days'), 'max(updated_at)') %}

with

bookings as (

    select * from {{ ref('int_bookings__converted_to_eur') }}

    {% if is_incremental() %}

        -- by the time of the last change: a booking may change long after it was made
        where
            updated_at >= (
                select
                    coalesce(
                        cast({{ read_from }} as {{ dbt.type_timestamp() }}),
                        cast('1900-01-01' as {{ dbt.type_timestamp() }})
                    )
                from {{ this }}
            )

    {% endif %}

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
    {{ dbt.datediff('booked_date', 'check_in_date', 'day') }} as lead_time_days,
    booking_amount,
    booking_amount_eur,

    ---------- booleans
    booking_status = 'cancelled' as is_cancelled,

    ---------- dates
    booked_date,
    check_in_date,
    check_out_date,

    ---------- timestamps
    booked_at,
    updated_at

from bookings
