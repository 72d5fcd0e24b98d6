{#
    Reference rates with the days on which each is the last known one, and the euro among them: a
    whole query, for a model that is nothing else.
#}
{% macro reference_rate_spans(relation, timestamps=[]) %}

with

reference_rates as (

    select * from {{ relation }}

),

spanned as (

    select

        currency_code,
        units_per_eur,
        rate_date,
        rate_date as valid_from_date,
        lead(rate_date) over (
            partition by currency_code
            order by rate_date
        ) as valid_until_date
        {%- for name in timestamps %},
        {{ name }}
        {%- endfor %}

    from reference_rates

),

-- the euro needs no rate, and gets one so that amounts in euro are converted like all others
euro as (

    select

        'EUR' as currency_code,
        cast(1 as {{ dbt.type_numeric() }}) as units_per_eur,
        cast(null as date) as rate_date,
        cast('1999-01-01' as date) as valid_from_date,
        cast(null as date) as valid_until_date
        {%- for name in timestamps %},
        cast(null as {{ dbt.type_timestamp() }}) as {{ name }}
        {%- endfor %}

),

combined as (

    select * from spanned

    union all

    select * from euro

)

select

    ---------- ids
    {{ surrogate_key(['currency_code', 'valid_from_date']) }} as rate_span_id,

    ---------- text
    currency_code,

    ---------- numerics
    units_per_eur,

    ---------- dates
    rate_date,
    valid_from_date,
    valid_until_date
    {%- if timestamps %},

    ---------- timestamps
    {{ timestamps | join(',\n    ') }}
    {%- endif %}

from combined

{% endmacro %}
