with

opportunities as (

    select * from {{ ref('fct_opportunities') }}

),

-- what comes into the pipeline and what leaves it, each in its own month
events as (

    select

        cast({{ dbt.date_trunc('month', 'created_date') }} as date) as pipeline_month,
        1 as created_count,
        coalesce(opportunity_amount, 0) as created_amount,
        0 as won_count,
        0 as won_amount,
        0 as lost_count,
        0 as lost_amount

    from opportunities

    union all

    select

        cast({{ dbt.date_trunc('month', 'closed_date') }} as date) as pipeline_month,
        0 as created_count,
        0 as created_amount,
        case when is_won then 1 else 0 end as won_count,
        case when is_won then coalesce(opportunity_amount, 0) else 0 end as won_amount,
        case when is_won then 0 else 1 end as lost_count,
        case when is_won then 0 else coalesce(opportunity_amount, 0) end as lost_amount

    from opportunities

    where is_closed

),

aggregated as (

    select

        pipeline_month,
        sum(created_count) as created_count,
        sum(created_amount) as created_amount,
        sum(won_count) as won_count,
        sum(won_amount) as won_amount,
        sum(lost_count) as lost_count,
        sum(lost_amount) as lost_amount

    from events

    group by pipeline_month

),

accumulated as (

    select

        *,
        sum(created_count - won_count - lost_count) over (
            order by pipeline_month
            rows between unbounded preceding and current row
        ) as open_count,
        sum(created_amount - won_amount - lost_amount) over (
            order by pipeline_month
            rows between unbounded preceding and current row
        ) as open_amount

    from aggregated

)

select

    ---------- numerics
    cast(created_count as {{ dbt.type_int() }}) as created_count,
    created_amount,
    cast(won_count as {{ dbt.type_int() }}) as won_count,
    won_amount,
    cast(lost_count as {{ dbt.type_int() }}) as lost_count,
    lost_amount,
    cast(open_count as {{ dbt.type_int() }}) as open_count,
    open_amount,
    cast(round(100.0 * won_count / nullif(won_count + lost_count, 0), 2) as numeric(28, 2))
        as win_percent,

    ---------- dates
    pipeline_month

from accumulated
