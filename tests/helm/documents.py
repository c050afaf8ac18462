"""The chart's files agree with each other and with those that they come from."""

import json
import pathlib
import re
import unittest

import yaml

from readme import text
from rendered import CHART


class Documents(unittest.TestCase):
    def test_the_chart_is_of_this_version(self):
        version = re.search(r'^version = "(.+)"$', pathlib.Path("Cargo.toml").read_text(), re.MULTILINE)[1]
        self.assertEqual(yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"], version)

    def test_the_image_is_what_the_chart_takes_it_for(self):
        image = pathlib.Path("deploy/Dockerfile").read_text()
        self.assertIn('\nENTRYPOINT ["/usr/bin/schemabridge"]\n', image)
        pod = yaml.safe_load((CHART / "values.yaml").read_text())["podSecurityContext"]
        self.assertIn(f"\nUSER {pod['runAsUser']}:{pod['runAsGroup']}\n", image)

    def test_the_readme_has_every_value(self):
        self.assertEqual((CHART / "README.md").read_text(), text(), "run tests/helm/readme.py")

    def test_alerts_and_dashboard_are_those_of_deploy(self):
        rules = yaml.safe_load(pathlib.Path("deploy/prometheus/alerts.yml").read_text())
        self.assertEqual(yaml.safe_load((CHART / "files/alerts.yml").read_text()), rules)
        dashboard = pathlib.Path("deploy/grafana/schemabridge.json").read_text()
        self.assertEqual((CHART / "files/dashboard.json").read_text(), dashboard)

    def test_every_value_is_read(self):
        templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
        read = set(re.findall(r"\.Values\.([A-Za-z.]+[A-Za-z])", templates))

        def is_read(path):
            return any(path == each or path.startswith(f"{each}.") for each in read)

        def check(values, path):
            for key, value in values.items():
                inner = f"{path}{key}"
                if isinstance(value, dict) and not is_read(inner):
                    check(value, f"{inner}.")
                else:
                    self.assertTrue(is_read(inner), f"no template reads {inner}")

        check(yaml.safe_load((CHART / "values.yaml").read_text()), "")

    def test_the_schema_and_the_values_have_the_same_keys(self):
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        schema = json.loads((CHART / "values.schema.json").read_text())

        def compare(values, schema, path):
            if "properties" not in schema or not isinstance(values, dict):
                return
            allowed = {key for key, value in schema["properties"].items() if value is not False}
            self.assertEqual(set(values), allowed - {"global"}, path)
            for key, value in values.items():
                compare(value, schema["properties"][key], f"{path}.{key}")

        compare(values, schema, "values")
