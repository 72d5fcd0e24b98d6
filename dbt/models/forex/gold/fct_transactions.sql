{#- the partitions of BigQuery; in PostgreSQL, there are none -#}
{% set months = {'field': 'booked_date', 'data_type': 'date', 'granularity': 'month'} %}

{{
    config(
        materialized='incremental',
        unique_key='transaction_id',
        partition_by=months if target.type == 'bigquery' else none,
        cluster_by=['customer_id', 'currency_code'] if target.type == 'bigquery' else none,
    )
}}

with

transactions as (

    select * from {{ ref('int_transactions__converted_to_eur') }}

    {% if is_incremental() %}

        where
            transaction_loaded_at >= {{ load_watermark(this, 'transaction_loaded_at') }}
            or rate_loaded_at >= {{ load_watermark(this, 'rate_loaded_at') }}

    {% endif %}

)

select

    ---------- ids
    transaction_id,
    customer_id,

    ---------- text
    transaction_kind,
    transaction_direction,
    currency_code,
    purpose,
    source_file,

    ---------- numerics
    revision_number,
    transaction_amount,
    net_amount,
    units_per_eur,
    transaction_amount_eur,
    net_amount_eur,

    ---------- booleans
    transaction_status = 'reversed' as is_reversed,
    revision_number > 1 as is_corrected,

    ---------- dates
    booked_date,
    rate_date,

    ---------- timestamps
    booked_at,
    transaction_loaded_at,
    rate_loaded_at

from transactions
