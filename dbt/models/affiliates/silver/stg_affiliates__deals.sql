{{ config(pre_hook="{{ delete_gone_files(source('affiliates', 'deals')) }}") }}

with

source as (

    select * from {{ source('affiliates', 'deals') }}

    {% if is_incremental() %}

        where _source_id in ({{ changed_files(source('affiliates', 'deals')) }})

    {% endif %}

),

renamed as (

    select

        ---------- ids
        deal_id,
        partner_id,
        _source_id,

        ---------- text
        lower(trim(commission_model)) as commission_model,

        ---------- numerics
        share_percent,
        fixed_amount,

        ---------- dates
        valid_from as valid_from_date,

        ---------- timestamps
        _loaded_at

    from source

)

select * from renamed
