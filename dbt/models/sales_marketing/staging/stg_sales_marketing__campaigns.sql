with

source as (

    select * from {{ source('sales_marketing', 'ads_campaigns') }}

),

renamed as (

    select

        ---------- ids
        campaign_id,

        ---------- text
        campaign_name,
        {{ campaign_key('campaign_name') }} as campaign_key,
        case platform
            when 'google' then 'search'
            when 'facebook' then 'social'
            when 'linkedin' then 'professional'
            else 'other'
        end as channel,

        ---------- numerics
        {{ micros_to_amount('daily_budget_micros') }} as daily_budget_amount,

        ---------- booleans
        upper(status) = 'ENABLED' as is_enabled,

        ---------- dates
        start_date,
        end_date

    from source

)

select * from renamed
