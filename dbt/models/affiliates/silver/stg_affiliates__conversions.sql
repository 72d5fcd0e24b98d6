{{ config(pre_hook="{{ delete_gone_files(source('affiliates', 'conversions')) }}") }}

with

source as (

    select * from {{ source('affiliates', 'conversions') }}

    {% if is_incremental() %}

        where _source_id in ({{ changed_files(source('affiliates', 'conversions')) }})

    {% endif %}

),

renamed as (

    select

        ---------- ids
        conversion_id,
        click_id,
        partner_id,
        _source_id,

        ---------- text
        lower(trim(status)) as conversion_status,

        ---------- numerics
        order_amount,

        ---------- dates
        cast(converted_at as date) as converted_date,

        ---------- timestamps
        converted_at,
        _loaded_at

    from source

)

select * from renamed
