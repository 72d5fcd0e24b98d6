{{ config(pre_hook="{{ delete_gone_files(source('affiliates', 'scrapers')) }}") }}

with

source as (

    select * from {{ source('affiliates', 'scrapers') }}

    {% if is_incremental() %}

        where _source_id in ({{ changed_files(source('affiliates', 'scrapers')) }})

    {% endif %}

),

renamed as (

    select

        ---------- ids
        {{ surrogate_key(['partner_id', 'report_date', epoch_milliseconds('scraped_at')]) }}
            as scraped_figure_id,
        partner_id,
        _source_id,

        ---------- numerics
        clicks as click_count,
        conversions as conversion_count,
        commission as commission_amount,

        ---------- dates
        report_date,

        ---------- timestamps
        scraped_at,
        _loaded_at

    from source

)

select * from renamed
