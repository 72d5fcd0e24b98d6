with

scraped_figures as (

    select * from {{ ref('int_scrapers__deduplicated') }}

)

select

    ---------- ids
    partner_day_id,
    partner_id,

    ---------- numerics
    click_count,
    conversion_count,
    commission_amount,

    ---------- dates
    report_date,

    ---------- timestamps
    scraped_at

from scraped_figures
