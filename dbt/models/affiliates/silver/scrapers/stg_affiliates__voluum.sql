{{ config(pre_hook="{{ delete_gone_files(source('affiliates', 'voluum')) }}") }}

with

source as (

    select * from {{ source('affiliates', 'voluum') }}

    {% if is_incremental() %}

        where _source_id in ({{ changed_files(source('affiliates', 'voluum')) }})

    {% endif %}

),

renamed as (

    select

        ---------- ids
        {{ surrogate_key(['campaign_id', 'report_date']) }} as campaign_day_id,
        campaign_id,
        _source_id,

        ---------- text
        trim(campaign_name) as campaign_name,

        ---------- numerics
        visits as visit_count,
        cost as cost_amount,

        ---------- dates
        report_date,

        ---------- timestamps
        _loaded_at

    from source

)

select * from renamed
