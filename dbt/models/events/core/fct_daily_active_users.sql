with

sessions as (

    select * from {{ ref('fct_sessions') }}

),

visitors as (

    select * from {{ ref('int_visitors__identified') }}

),

visits as (

    select

        sessions.*,
        visitors.person_id,
        visitors.user_id as known_user_id,
        visitors.first_seen_date

    from sessions

    inner join visitors
        on sessions.anonymous_id = visitors.anonymous_id

),

days as (

    select

        activity_date,
        count(distinct person_id) as active_person_count,
        count(distinct known_user_id) as active_user_count,
        count(
            distinct case when activity_date = first_seen_date then anonymous_id end
        ) as new_visitor_count,
        count(*) as session_count,
        sum(case when is_sign_up then 1 else 0 end) as sign_up_count,
        sum(purchase_count) as purchase_count,
        sum(purchase_amount) as purchase_amount

    from visits

    group by activity_date

),

-- never summed from days: who comes twice is one
weeks as (

    select

        days.activity_date,
        count(distinct visits.person_id) as weekly_active_person_count

    from days

    inner join visits
        on
            days.activity_date >= visits.activity_date
            and {{ dbt.datediff('visits.activity_date', 'days.activity_date', 'day') }} < 7

    group by days.activity_date

)

select

    ---------- numerics
    cast(days.active_person_count as {{ dbt.type_int() }}) as active_person_count,
    cast(days.active_user_count as {{ dbt.type_int() }}) as active_user_count,
    cast(weeks.weekly_active_person_count as {{ dbt.type_int() }}) as weekly_active_person_count,
    cast(days.new_visitor_count as {{ dbt.type_int() }}) as new_visitor_count,
    cast(days.session_count as {{ dbt.type_int() }}) as session_count,
    cast(days.sign_up_count as {{ dbt.type_int() }}) as sign_up_count,
    cast(days.purchase_count as {{ dbt.type_int() }}) as purchase_count,
    days.purchase_amount,

    ---------- dates
    days.activity_date

from days

inner join weeks
    on days.activity_date = weeks.activity_date
