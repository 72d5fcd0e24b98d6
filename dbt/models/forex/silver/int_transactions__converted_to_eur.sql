{#- the partitions of BigQuery; in PostgreSQL, there are none -#}
{% set months = {'field': 'booked_date', 'data_type': 'date', 'granularity': 'month'} %}

{{
    config(
        materialized='incremental',
        unique_key='transaction_id',
        partition_by=months if target.type == 'bigquery' else none,
        cluster_by=['transaction_id'] if target.type == 'bigquery' else none,
    )
}}

with

transactions as (

    select * from {{ ref('stg_forex__transactions') }}

),

rates as (

    select * from {{ ref('int_forex_rates__spanned') }}

),

signed as (

    select

        *,
        case
            when transaction_status = 'reversed' then 0
            when transaction_direction = 'debit' then -transaction_amount
            else transaction_amount
        end as net_amount

    from transactions

),

joined as (

    select

        signed.*,
        signed.loaded_at as transaction_loaded_at,
        rates.units_per_eur,
        rates.rate_date,
        rates.loaded_at as rate_loaded_at

    from signed

    left join rates
        on
            signed.currency_code = rates.currency_code
            and signed.booked_date >= rates.valid_from_date
            and (
                signed.booked_date < rates.valid_until_date
                or rates.valid_until_date is null
            )

)

select

    ---------- ids
    transaction_id,
    customer_id,

    ---------- text
    transaction_kind,
    transaction_direction,
    transaction_status,
    currency_code,
    purpose,
    source_file,

    ---------- numerics
    revision_number,
    transaction_amount,
    net_amount,
    units_per_eur,
    {{ dbt.datediff('rate_date', 'booked_date', 'day') }} as rate_age_days,
    round(transaction_amount / units_per_eur, 2) as transaction_amount_eur,
    round(net_amount / units_per_eur, 2) as net_amount_eur,

    ---------- dates
    booked_date,
    rate_date,

    ---------- timestamps
    booked_at,
    transaction_loaded_at,
    rate_loaded_at

from joined

{% if is_incremental() %}

    -- by two load times: a rate that comes late changes transactions that came long before it
    where
        transaction_loaded_at >= {{ load_watermark(this, 'transaction_loaded_at') }}
        or rate_loaded_at >= {{ load_watermark(this, 'rate_loaded_at') }}

{% endif %}
