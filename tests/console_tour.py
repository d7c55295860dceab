"""Every page of the console, for tests that visit them all."""

from __future__ import annotations

from collections.abc import AsyncIterator

from playwright.async_api import Page, expect


def pages(unit: str, enterprise: str, county: str) -> dict[str, str]:
    """Addresses behind the #, by name."""
    return {
        "province": "",
        "city": f"place/{county[:4]}00",
        "county": f"place/{county}",
        "enterprise": f"enterprise/{enterprise}",
        "unit": f"unit/{unit}",
        "alarms": "alarms",
        "connect": "connect",
        "connect-unit": f"connect?unit={unit}",
        "pipeline": "pipeline",
        "programme": "programme",
        "what-if": "what-if",
        "model": "model",
        "search": f"search?q={unit}",
        "sign-in": "sign-in",
    }


async def visit(page: Page, url: str, path: str, language: str) -> None:
    """Open a page as somebody who comes by a link, and wait for it."""
    await page.goto("about:blank")
    await page.goto(f"{url}/?lang={language}#/{path}")
    await expect(page.locator("main .page")).to_be_visible()


async def tour(
    page: Page, url: str, addresses: dict[str, str], looks: list[tuple[str, str]]
) -> AsyncIterator[tuple[str, str, str]]:
    """Visit every page in each (language, theme); yields both and the page's name."""
    for language, theme in looks:
        await page.goto(url)
        await page.evaluate("theme => localStorage.setItem('qilu.theme', theme)", theme)
        for name, path in addresses.items():
            await visit(page, url, path, language)
            yield language, theme, name
