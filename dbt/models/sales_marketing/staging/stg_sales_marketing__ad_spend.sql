with

source as (

    select * from {{ source('sales_marketing', 'ads_spend') }}

),

numbered as (

    select

        *,
        row_number() over (
            partition by campaign_id, spend_date
            order by reported_at desc, _airbyte_extracted_at desc
        ) as report_from_last

    from source

),

renamed as (

    select

        ---------- ids
        {{ surrogate_key(['campaign_id', 'spend_date']) }} as ad_spend_id,
        campaign_id,

        ---------- numerics
        cast(impressions as {{ dbt.type_int() }}) as impression_count,
        cast(clicks as {{ dbt.type_int() }}) as click_count,
        {{ micros_to_amount('cost_micros') }} as spend_amount,

        ---------- dates
        spend_date,

        ---------- timestamps
        cast(reported_at as {{ dbt.type_timestamp() }}) as reported_at,
        _airbyte_extracted_at as extracted_at

    from numbered

    where report_from_last = 1

)

select * from renamed
