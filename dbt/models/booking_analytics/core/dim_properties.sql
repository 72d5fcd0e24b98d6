with

properties as (

    select * from {{ ref('stg_bookings_app__properties') }}

),

bookings as (

    select * from {{ ref('fct_bookings') }}

),

stays_by_property as (

    select

        property_id,
        count(*) as stay_count,
        sum(night_count) as night_count,
        sum(booking_amount_eur) as lifetime_revenue_eur

    from bookings

    where not is_cancelled

    group by property_id

),

joined as (

    select

        properties.*,
        coalesce(stays_by_property.stay_count, 0) as stay_count,
        coalesce(stays_by_property.night_count, 0) as night_count,
        coalesce(stays_by_property.lifetime_revenue_eur, 0) as lifetime_revenue_eur

    from properties

    left join stays_by_property
        on properties.property_id = stays_by_property.property_id

)

select

    ---------- ids
    property_id,

    ---------- text
    property_name,
    property_kind,
    city,
    country_code,
    currency_code,

    ---------- numerics
    bedroom_count,
    nightly_rate,
    cast(stay_count as {{ dbt.type_int() }}) as stay_count,
    cast(night_count as {{ dbt.type_int() }}) as night_count,
    lifetime_revenue_eur,

    ---------- dates
    listed_date

from joined
