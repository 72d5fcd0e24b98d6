{#- the partitions of BigQuery; in PostgreSQL, there are none -#}
{% set months = {'field': 'booked_date', 'data_type': 'date', 'granularity': 'month'} %}

{{
    config(
        unique_key='transaction_id',
        partition_by=months if target.type == 'bigquery' else none,
        cluster_by=['transaction_id'] if target.type == 'bigquery' else none,
    )
}}

with

source as (

    select * from {{ source('forex', 'transactions') }}

),

renamed as (

    select

        ---------- ids
        transaction_id,
        customer_id,

        ---------- text
        lower(trim(kind)) as transaction_kind,
        lower(trim(direction)) as transaction_direction,
        lower(trim(status)) as transaction_status,
        upper(trim(currency)) as currency_code,
        replace(trim(purpose), chr(10), ' ') as purpose,
        _source_file as source_file,

        ---------- numerics
        revision as revision_number,
        amount as transaction_amount,

        ---------- dates
        cast(booked_at as date) as booked_date,

        ---------- timestamps
        booked_at,
        _loaded_at as loaded_at

    from source

)

select * from renamed

{% if is_incremental() %}

    where loaded_at >= {{ load_watermark(this, 'loaded_at') }}

{% endif %}
