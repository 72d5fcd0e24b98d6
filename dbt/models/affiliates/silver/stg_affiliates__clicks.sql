{{ config(pre_hook="{{ delete_gone_files(source('affiliates', 'clicks')) }}") }}

with

source as (

    select * from {{ source('affiliates', 'clicks') }}

    {% if is_incremental() %}

        where _source_id in ({{ changed_files(source('affiliates', 'clicks')) }})

    {% endif %}

),

renamed as (

    select

        ---------- ids
        click_id,
        partner_id,
        campaign_id,
        _source_id,

        ---------- text
        lower(trim(device)) as device_kind,

        ---------- dates
        cast(clicked_at as date) as clicked_date,

        ---------- timestamps
        clicked_at,
        _loaded_at

    from source

)

select * from renamed
