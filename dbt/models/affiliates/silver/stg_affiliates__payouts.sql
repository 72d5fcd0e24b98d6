{{ config(pre_hook="{{ delete_gone_files(source('affiliates', 'payouts')) }}") }}

with

source as (

    select * from {{ source('affiliates', 'payouts') }}

    {% if is_incremental() %}

        where _source_id in ({{ changed_files(source('affiliates', 'payouts')) }})

    {% endif %}

),

renamed as (

    select

        ---------- ids
        payout_id,
        partner_id,
        _source_id,

        ---------- numerics
        amount as paid_amount,

        ---------- dates
        paid_on as paid_date,

        ---------- timestamps
        _loaded_at

    from source

)

select * from renamed
