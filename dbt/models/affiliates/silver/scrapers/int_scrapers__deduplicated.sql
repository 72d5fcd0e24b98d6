{{ config(materialized='view') }}

with

scraped_figures as (

    select * from {{ ref('stg_affiliates__scrapers') }}

),

numbered as (

    select

        *,
        row_number() over (
            partition by partner_id, report_date
            order by scraped_at desc
        ) as visit_from_last

    from scraped_figures

)

select

    ---------- ids
    {{ surrogate_key(['partner_id', 'report_date']) }} as partner_day_id,
    partner_id,

    ---------- numerics
    click_count,
    conversion_count,
    commission_amount,

    ---------- dates
    report_date,

    ---------- timestamps
    scraped_at

from numbered

where visit_from_last = 1
