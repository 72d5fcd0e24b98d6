with

visitors as (

    select * from {{ ref('int_visitors__identified') }}

),

users as (

    select * from {{ ref('int_users__signed_up') }}

),

-- each step after the one before it, so that nobody is in a later step and not in an earlier one
steps as (

    select

        visitors.first_seen_date as cohort_date,
        visitors.first_traffic_source as traffic_source,
        case when visitors.first_product_view_at is not null then 1 else 0 end as interested,
        case
            when users.signed_up_at >= visitors.first_product_view_at then 1
            else 0
        end as signed_up,
        case
            when
                users.signed_up_at >= visitors.first_product_view_at
                and users.first_purchased_at >= users.signed_up_at
                then 1
            else 0
        end as bought

    from visitors

    left join users
        on visitors.user_id = users.user_id

),

aggregated as (

    select

        cohort_date,
        traffic_source,
        count(*) as visitor_count,
        sum(interested) as interested_count,
        sum(signed_up) as signed_up_count,
        sum(bought) as buyer_count

    from steps

    group by
        cohort_date,
        traffic_source

)

select

    ---------- ids
    {{ surrogate_key(['cohort_date', 'traffic_source']) }} as conversion_funnel_id,

    ---------- text
    traffic_source,

    ---------- numerics
    cast(visitor_count as {{ dbt.type_int() }}) as visitor_count,
    cast(interested_count as {{ dbt.type_int() }}) as interested_count,
    cast(signed_up_count as {{ dbt.type_int() }}) as signed_up_count,
    cast(buyer_count as {{ dbt.type_int() }}) as buyer_count,
    round(
        cast(100 * buyer_count as {{ dbt.type_numeric() }}) / visitor_count, 2
    ) as conversion_percent,

    ---------- dates
    cohort_date

from aggregated
