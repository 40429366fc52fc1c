-- name: save
-- A report; the same report again finds its row.
insert into ml_data_quality_reports (
    key, report_name, expectation_suite_name, table_name, brand, region, overall_status, overall_score,
    expectations_evaluated, expectations_passed, expectations_failed, success_rate, failed_expectations, issues,
    completeness_score, validity_score, uniqueness_score, consistency_score, timeliness_score, accuracy_score,
    leakage_detected, leakage_details, row_count, column_count, data_sha256, run_by, run_at, data_split
)
values (
    %(key)s, %(report_name)s, %(suites)s, %(table)s, %(brand)s, %(region)s, %(status)s, %(score)s,
    %(evaluated)s, %(passed)s, %(failed)s, %(success_rate)s, %(failed_expectations)s, %(issues)s,
    %(completeness)s, %(validity)s, %(uniqueness)s, %(consistency)s, %(timeliness)s, %(accuracy)s,
    %(leakage_detected)s, %(leakage_details)s, %(rows)s, %(columns)s, %(data_sha256)s, %(run_by)s, %(run_at)s, %(split)s
)
on conflict (key) do update set key = excluded.key
returning id::text as id
